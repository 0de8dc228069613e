//! The proxies: what each is asked to be, its listener, and the fault that it is.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

use super::{
    error::ApiError,
    relay::Relay,
    toxic::{Toxic, Wanted},
};
use crate::{
    control::Control,
    fault::book::ArmedFault,
    model::{Fault, fault},
    proxy::Proxy,
};

/// All proxies.
pub(super) struct Proxies {
    control: Control,
    proxy: Arc<Proxy>,
    stop: CancellationToken,
    /// Held through a request: what it waits for is the kernel's tables and a bind, never a connection.
    by_name: Mutex<BTreeMap<String, Entry>>,
}

/// A proxy.
struct Entry {
    listen: String,
    upstream: String,
    toxics: Vec<Toxic>,
    /// `proxies --ArmedFault--> listener`: the fault that new connections are taken in by.
    armed_tx: watch::Sender<Arc<ArmedFault>>,
    /// None while it is not enabled.
    relay: Option<Relay>,
}

/// A proxy, or a change of one, as it is asked for. Unknown fields are passed over, as Toxiproxy does, and toxics too.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WantedProxy {
    pub(super) name: String,
    pub(super) listen: String,
    pub(super) upstream: String,
    pub(super) enabled: Option<bool>,
}

/// A proxy as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct ProxyView {
    name: String,
    listen: String,
    upstream: String,
    enabled: bool,
    toxics: Vec<Toxic>,
}

impl Entry {
    fn view(&self, name: &str) -> ProxyView {
        ProxyView {
            name: name.to_owned(),
            listen: self.listen.clone(),
            upstream: self.upstream.clone(),
            enabled: self.relay.is_some(),
            toxics: self.toxics.clone(),
        }
    }

    /// Its toxics went with its fault, if somebody removed that.
    fn look(&mut self) {
        if self.armed_tx.borrow().removed.is_cancelled() {
            self.toxics.clear();
        }
    }
}

impl Proxies {
    pub(super) fn new(control: Control, proxy: Arc<Proxy>, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            control,
            proxy,
            stop,
            by_name: Mutex::default(),
        })
    }

    pub(super) async fn list(&self) -> BTreeMap<String, ProxyView> {
        let mut by_name = self.by_name.lock().await;
        let views = by_name.iter_mut().map(|(name, entry)| {
            entry.look();
            (name.clone(), entry.view(name))
        });
        views.collect()
    }

    pub(super) async fn show(&self, name: &str) -> Result<ProxyView, ApiError> {
        let mut by_name = self.by_name.lock().await;
        let entry = find(&mut by_name, name)?;
        Ok(entry.view(name))
    }

    pub(super) async fn create(&self, wanted: WantedProxy) -> Result<ProxyView, ApiError> {
        if wanted.name.is_empty() {
            return Err(ApiError::missing("name"));
        }
        if wanted.upstream.is_empty() {
            return Err(ApiError::missing("upstream"));
        }
        let mut by_name = self.by_name.lock().await;
        if by_name.contains_key(&wanted.name) {
            return Err(ApiError::proxy_exists());
        }
        self.insert(&mut by_name, wanted).await
    }

    /// Makes several at once; those that are there already and are the same stay, with their toxics. The second part
    /// is what stopped it half-way.
    pub(super) async fn populate(&self, wanted: Vec<WantedProxy>) -> (Vec<ProxyView>, Option<ApiError>) {
        let mut views = Vec::new();
        for (number, proxy) in (1..).zip(&wanted) {
            for (field, text) in [("name", &proxy.name), ("upstream", &proxy.upstream)] {
                if text.is_empty() {
                    let field = format!("{field} at proxy {number}");
                    return (views, Some(ApiError::missing(&field)));
                }
            }
        }
        let mut by_name = self.by_name.lock().await;
        for proxy in wanted {
            match self.replace(&mut by_name, proxy).await {
                Ok(view) => views.push(view),
                Err(error) => return (views, Some(error)),
            }
        }
        (views, None)
    }

    async fn replace(
        &self,
        by_name: &mut BTreeMap<String, Entry>,
        wanted: WantedProxy,
    ) -> Result<ProxyView, ApiError> {
        if let Some(entry) = by_name.get_mut(&wanted.name) {
            entry.look();
            let is_same =
                is_same_address(&entry.listen, &wanted.listen).await && entry.upstream == wanted.upstream;
            if is_same {
                self.enable(entry, wanted.enabled.unwrap_or(true)).await?;
                return Ok(entry.view(&wanted.name));
            }
            self.end(by_name, &wanted.name).await?;
        }
        self.insert(by_name, wanted).await
    }

    async fn insert(
        &self,
        by_name: &mut BTreeMap<String, Entry>,
        wanted: WantedProxy,
    ) -> Result<ProxyView, ApiError> {
        let WantedProxy {
            name,
            listen,
            upstream,
            enabled,
        } = wanted;
        let armed = self.arm(&name, &listen, &upstream, &[]).await?;
        let id = armed.id;
        let mut entry = Entry {
            listen,
            upstream,
            toxics: Vec::new(),
            armed_tx: watch::Sender::new(armed),
            relay: None,
        };
        if let Err(error) = self.enable(&mut entry, enabled.unwrap_or(true)).await {
            self.control.remove(id).await?;
            return Err(error);
        }
        // Now that the port is known.
        self.apply(&name, &mut entry, &[]).await?;
        let view = entry.view(&name);
        by_name.insert(name, entry);
        Ok(view)
    }

    /// Changes what is said of listen, upstream and enabled.
    pub(super) async fn change(&self, name: &str, wanted: WantedProxy) -> Result<ProxyView, ApiError> {
        let mut by_name = self.by_name.lock().await;
        let entry = find(&mut by_name, name)?;
        let is_enabled = wanted.enabled.unwrap_or(entry.relay.is_some());
        let listen = (!wanted.listen.is_empty()).then_some(wanted.listen);
        let listen = match listen {
            Some(listen) if !is_same_address(&entry.listen, &listen).await => Some(listen),
            _ => None,
        };
        let upstream = Some(wanted.upstream).filter(|new| !new.is_empty() && *new != entry.upstream);
        let is_moved = listen.is_some() || upstream.is_some();
        if is_moved {
            self.enable(entry, false).await?;
            entry.listen = listen.unwrap_or_else(|| entry.listen.clone());
            entry.upstream = upstream.unwrap_or_else(|| entry.upstream.clone());
        }
        self.enable(entry, is_enabled).await?;
        if is_moved {
            self.apply(name, entry, &[]).await?;
        }
        Ok(entry.view(name))
    }

    pub(super) async fn delete(&self, name: &str) -> Result<(), ApiError> {
        let mut by_name = self.by_name.lock().await;
        find(&mut by_name, name)?;
        self.end(&mut by_name, name).await
    }

    /// Enables all proxies and removes all toxics.
    pub(super) async fn reset(&self) -> Result<(), ApiError> {
        let mut by_name = self.by_name.lock().await;
        for (name, entry) in by_name.iter_mut() {
            entry.look();
            self.enable(entry, true).await?;
            let removed = std::mem::take(&mut entry.toxics);
            self.apply(name, entry, &removed).await?;
        }
        Ok(())
    }

    pub(super) async fn toxics(&self, proxy: &str) -> Result<Vec<Toxic>, ApiError> {
        let mut by_name = self.by_name.lock().await;
        Ok(find(&mut by_name, proxy)?.toxics.clone())
    }

    pub(super) async fn toxic(&self, proxy: &str, toxic: &str) -> Result<Toxic, ApiError> {
        let toxics = self.toxics(proxy).await?;
        let mut toxics = toxics.into_iter();
        toxics
            .find(|each| each.name == toxic)
            .ok_or_else(ApiError::no_toxic)
    }

    pub(super) async fn add_toxic(&self, proxy: &str, wanted: Wanted) -> Result<Toxic, ApiError> {
        let mut by_name = self.by_name.lock().await;
        let entry = find(&mut by_name, proxy)?;
        let toxic = Toxic::new(wanted)?;
        if entry.toxics.iter().any(|other| other.name == toxic.name) {
            return Err(ApiError::toxic_exists());
        }
        if entry.toxics.len() == fault::MAX_EFFECTS {
            return Err(ApiError::failed(format_args!(
                "a proxy has at most {} toxics",
                fault::MAX_EFFECTS
            )));
        }
        entry.toxics.push(toxic.clone());
        self.apply(proxy, entry, &[]).await?;
        Ok(toxic)
    }

    pub(super) async fn change_toxic(
        &self,
        proxy: &str,
        toxic: &str,
        wanted: Wanted,
    ) -> Result<Toxic, ApiError> {
        let mut by_name = self.by_name.lock().await;
        let entry = find(&mut by_name, proxy)?;
        let found = entry.toxics.iter_mut().find(|each| each.name == toxic);
        let found = found.ok_or_else(ApiError::no_toxic)?;
        found.change(wanted)?;
        let changed = found.clone();
        self.apply(proxy, entry, &[]).await?;
        Ok(changed)
    }

    pub(super) async fn delete_toxic(&self, proxy: &str, toxic: &str) -> Result<(), ApiError> {
        let mut by_name = self.by_name.lock().await;
        let entry = find(&mut by_name, proxy)?;
        let place = entry.toxics.iter().position(|each| each.name == toxic);
        let removed = entry.toxics.remove(place.ok_or_else(ApiError::no_toxic)?);
        self.apply(proxy, entry, &[removed]).await
    }

    /// Has the fault do what the toxics say, on open connections too.
    async fn apply(&self, name: &str, entry: &mut Entry, removed: &[Toxic]) -> Result<(), ApiError> {
        // Before the change lets go of what was held, which Toxiproxy throws away.
        if removed.iter().any(Toxic::closes_when_removed)
            && let Some(relay) = &entry.relay
        {
            relay.close_all();
        }
        let armed = entry.armed_tx.borrow().clone();
        let armed = if armed.removed.is_cancelled() {
            self.arm(name, &entry.listen, &entry.upstream, &entry.toxics)
                .await?
        } else {
            let fault = fault_of(&armed.fault.name, &entry.listen, &entry.upstream, &entry.toxics);
            let seed = armed.fault.seed;
            self.control.change(&armed, Fault { seed, ..fault }).await?
        };
        entry.armed_tx.send_replace(armed);
        Ok(())
    }

    /// Opens or closes the listener; with the latter its connections end.
    async fn enable(&self, entry: &mut Entry, is_wanted: bool) -> Result<(), ApiError> {
        if !is_wanted {
            if let Some(relay) = entry.relay.take() {
                relay.end().await;
            }
        } else if entry.relay.is_none() {
            let relay = Relay::start(
                &entry.listen,
                entry.upstream.clone(),
                self.proxy.clone(),
                entry.armed_tx.subscribe(),
                self.stop.child_token(),
            );
            let relay = relay.await;
            let relay = relay
                .map_err(|error| ApiError::failed(format_args!("listen tcp {}: {error}", entry.listen)))?;
            entry.listen = relay.address.to_string();
            entry.relay = Some(relay);
        }
        Ok(())
    }

    async fn end(&self, by_name: &mut BTreeMap<String, Entry>, name: &str) -> Result<(), ApiError> {
        let Some(mut entry) = by_name.remove(name) else {
            return Ok(());
        };
        self.enable(&mut entry, false).await?;
        let id = entry.armed_tx.borrow().id;
        Ok(self.control.remove(id).await?)
    }

    async fn arm(
        &self,
        name: &str,
        listen: &str,
        upstream: &str,
        toxics: &[Toxic],
    ) -> Result<Arc<ArmedFault>, ApiError> {
        let name = self.free_name(name);
        Ok(self
            .control
            .arm(fault_of(&name, listen, upstream, toxics))
            .await?)
    }

    /// A name that a fault can have, as near as can be to that of the proxy.
    fn free_name(&self, proxy: &str) -> String {
        let allowed = |c: char| match c {
            c if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') => c,
            _ => '-',
        };
        let mut name: String = proxy.chars().take(fault::MAX_NAME - 6).map(allowed).collect();
        if name.chars().all(|c| c == '.') {
            name = format!("proxy{name}");
        }
        let is_free = |name: &String| self.control.fault(name).is_err();
        let mut names = std::iter::once(name.clone()).chain((2..).map(|number| format!("{name}-{number}")));
        names.find(is_free).unwrap_or(name)
    }
}

fn fault_of(name: &str, listen: &str, upstream: &str, toxics: &[Toxic]) -> Fault {
    let relay = fault::Relay {
        listen: listen.to_owned(),
        upstream: upstream.to_owned(),
    };
    Fault::of_relay(name, relay, toxics.iter().filter_map(Toxic::step).collect())
}

fn find<'a>(by_name: &'a mut BTreeMap<String, Entry>, name: &str) -> Result<&'a mut Entry, ApiError> {
    let entry = by_name.get_mut(name).ok_or_else(ApiError::no_proxy)?;
    entry.look();
    Ok(entry)
}

/// Do two texts mean one address? `localhost:80` and `127.0.0.1:80` do.
async fn is_same_address(one: &str, other: &str) -> bool {
    if one == other {
        return true;
    }
    let resolve = async |text: &str| {
        let mut addresses: Vec<_> = tokio::net::lookup_host(text).await.ok()?.collect();
        addresses.sort_by_key(std::net::SocketAddr::is_ipv6);
        addresses.first().copied()
    };
    let one = resolve(one).await;
    one.is_some() && one == resolve(other).await
}
