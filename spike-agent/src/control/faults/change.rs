//! Changes a fault that is armed: the connections that it has take the change on at once.

use std::sync::Arc;

use serde_json::Value;

use super::{Control, ControlError};
use crate::{
    fault::book::ArmedFault,
    model::{
        Fault, FieldError, RawFault,
        json::{self, JsonError},
        view::{AuditEvent, FaultView},
    },
};

impl Control {
    /// Puts another fault in the place of an armed one, which keeps its name, counts and connections, and its seed unless
    /// another is given; answers once it is in force. Its time to live starts again.
    pub async fn fault_change(&self, name: &str, raw: &RawFault) -> Result<FaultView, ControlError> {
        let armed = self.armed(name)?;
        if armed.fault.relay.is_some() {
            return Err(ControlError::Conflict(format!(
                "`{name}` is a proxy of Toxiproxy's API: change it there"
            )));
        }
        if raw.name.as_deref().is_some_and(|other| other != name) {
            return Err(
                FieldError::new("name", "cannot be changed: remove the fault and arm another").into(),
            );
        }
        let mut fault = Fault::try_from(raw)?;
        fault.seed = raw.seed.unwrap_or(armed.fault.seed);
        let changed = self.change(&armed, fault).await?;
        Ok(self.fault_view(&changed))
    }

    /// Changes some fields of an armed fault by a merge patch (RFC 7396); an effect with a `type` replaces the old one.
    pub async fn fault_patch(&self, name: &str, patch: &Value) -> Result<FaultView, ControlError> {
        let armed = self.armed(name)?;
        let old = serde_json::to_value(RawFault::from(&*armed.fault));
        let mut document = old.map_err(|error| ControlError::Internal(format!("show the fault: {error}")))?;
        let Some(fields) = patch.as_object() else {
            return Err(FieldError::new("", "a change is an object with the fields to change").into());
        };
        let replaces = |value: &Value| value.get("type").is_some();
        for (key, value) in fields {
            match key.as_str() {
                "effect" if replaces(value) => document[key] = value.clone(),
                _ => merge(&mut document[key], value),
            }
        }
        // One way of saying the effects replaces the other.
        for (said, other) in [("effect", "effects"), ("effects", "effect")] {
            if fields.contains_key(said) && !fields.contains_key(other) {
                document[other] = Value::Null;
            }
        }
        if let Some(document) = document.as_object_mut() {
            document.retain(|_, value| !value.is_null());
        }
        let text = document.to_string();
        let raw = json::parse::<RawFault>(text.as_bytes()).map_err(|error| match error {
            JsonError::Field(error) => ControlError::Field(error),
            JsonError::Syntax(error) => ControlError::Internal(error),
        })?;
        self.fault_change(name, &raw).await
    }

    /// Changes an armed fault to one that is already checked; answers once that is in force. When it cannot be, the old
    /// one stays.
    pub async fn change(
        &self,
        armed: &Arc<ArmedFault>,
        fault: Fault,
    ) -> Result<Arc<ArmedFault>, ControlError> {
        self.check(&fault)?;
        self.prepare(&fault).await?;
        let name = &armed.fault.name;
        let changed = self.book.change(armed.id, fault);
        let changed = changed.ok_or_else(|| ControlError::no_such("fault", name))?;
        if let Err(error) = self.put_in_force(&changed).await {
            self.book.change(armed.id, (*armed.fault).clone());
            let _ = self.planes.settle().await;
            return Err(error);
        }
        tracing::info!(fault = name, effect = changed.fault.kind(), "fault changed");
        self.record(&changed, AuditEvent::Changed, None);
        Ok(changed)
    }
}

/// RFC 7396.
fn merge(target: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    if let Some(target) = target.as_object_mut() {
        for (key, value) in patch {
            if value.is_null() {
                target.remove(key);
            } else {
                merge(target.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
    }
}
