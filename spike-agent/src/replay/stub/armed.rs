//! The stubs that answer now, and which connections are theirs.

use std::{
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock, atomic::AtomicU64, atomic::Ordering},
};

use tokio::time::Instant;

use super::{Datagrams, Settings, Stub};
use crate::{
    model::{Caller, Destination, EndSelector, FieldError, RawEnd, Selector, StubSpec, selector::RawPort},
    recording::live::Live,
    replay::{Loaded, Matcher, Noise},
};

/// Most stubs at one time.
const STUBS_LIMIT: usize = 256;

/// The stubs that answer now.
#[derive(Debug, Default)]
pub struct Stubs {
    all: RwLock<Arc<[Arc<ArmedStub>]>>,
    last: AtomicU64,
}

/// A stub that answers.
#[derive(Debug)]
pub struct ArmedStub {
    /// Unlike that of any other stub.
    pub name: String,
    /// How it was asked for.
    pub spec: StubSpec,
    /// What answers.
    pub stub: Arc<Stub>,
    /// Its connections: those that any of these chooses.
    pub selectors: Vec<Selector>,
    /// Datagrams that ask for names, to be answered from the recording.
    pub datagrams: Vec<Selector>,
    /// When it ends by itself.
    pub deadline: Instant,
    /// What of the recording cannot be replayed, and why.
    pub left_out: Vec<String>,
}

impl Stubs {
    /// Makes a stub and has it answer; what the real server answers is kept in `kept`, if there is one.
    ///
    /// # Errors
    /// Which field is wrong.
    pub fn add(
        &self,
        spec: StubSpec,
        loaded: &Loaded,
        kept: Option<Arc<Live>>,
    ) -> Result<Arc<ArmedStub>, FieldError> {
        let matcher = Matcher {
            noise: Noise {
                rules: spec.noise.clone(),
            },
            headers: spec.headers.clone(),
        };
        let settings = Settings {
            pace: spec.pace,
            on_miss: spec.on_miss,
            lifetime: spec.lifetime,
            matcher,
            kept,
        };
        let names = loaded
            .names
            .iter()
            .filter_map(|(name, _, answer)| Some((name.as_str(), answer.parse().ok()?)));
        let stub = Stub::new(&loaded.talks, names, settings);
        let selectors = selectors(&spec.selector, &stub)?;
        let datagrams = datagrams(&spec.selector, &stub)?;
        let left_out = loaded.talks.iter().flat_map(|talk| {
            let server = &talk.server;
            talk.left_out.iter().map(move |why| format!("{server}: {why}"))
        });
        let left_out = left_out.collect();
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= STUBS_LIMIT {
            let message = format!("{STUBS_LIMIT} stubs are there already; stop some first");
            return Err(FieldError::new("", message));
        }
        let is_taken = |name: &str| all.iter().any(|armed| armed.name == name);
        let name = match &spec.name {
            Some(name) if is_taken(name) => {
                return Err(FieldError::new(
                    "name",
                    format_args!("a stub named `{name}` is there already"),
                ));
            }
            Some(name) => name.clone(),
            None => loop {
                let name = format!("stub-{}", self.last.fetch_add(1, Ordering::Relaxed) + 1);
                if !is_taken(&name) {
                    break name;
                }
            },
        };
        let armed = Arc::new(ArmedStub {
            name,
            deadline: Instant::now() + spec.ttl,
            spec,
            stub,
            selectors,
            datagrams,
            left_out,
        });
        *all = all.iter().cloned().chain([armed.clone()]).collect();
        Ok(armed)
    }

    /// All of them, the oldest first.
    pub fn list(&self) -> Arc<[Arc<ArmedStub>]> {
        self.all.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The one of this name.
    pub fn get(&self, name: &str) -> Option<Arc<ArmedStub>> {
        self.list().iter().find(|armed| armed.name == name).cloned()
    }

    /// Takes those away that `is_chosen` says; connections that they have taken go on to their end.
    pub fn remove_where(&self, is_chosen: impl Fn(&ArmedStub) -> bool) -> Vec<Arc<ArmedStub>> {
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        let (removed, kept): (Vec<_>, Vec<_>) = all.iter().cloned().partition(|armed| is_chosen(armed));
        *all = kept.into();
        removed
    }

    /// The stub that answers a connection: the newest of those that it belongs to.
    pub fn of(&self, caller: &Caller, destination: &Destination) -> Option<Arc<ArmedStub>> {
        let all = self.list();
        let found = all.iter().rev().find(|armed| armed.chooses(caller, destination));
        found.cloned()
    }
}

impl Stubs {
    /// What answers the datagrams between a socket and a name server: the newest stub that they belong to.
    pub fn datagrams(self: &Arc<Self>, caller: &Caller, destination: &Destination) -> Option<Datagrams> {
        let all = self.list();
        let is_meant = |armed: &&Arc<ArmedStub>| {
            let mut selectors = armed.datagrams.iter();
            selectors.any(|selector| selector.matches(caller, destination))
        };
        let armed = all.iter().rev().find(is_meant)?;
        let (stub, from) = (armed.stub.clone(), armed.spec.selector.from.clone());
        let (stubs, name) = (self.clone(), armed.name.clone());
        let is_there = move |stub: &Arc<Stub>| {
            stubs
                .get(&name)
                .is_some_and(|armed| Arc::ptr_eq(&armed.stub, stub))
        };
        Some(Datagrams::new(stub, destination.address, from, is_there))
    }
}

impl ArmedStub {
    fn chooses(&self, caller: &Caller, destination: &Destination) -> bool {
        self.selectors
            .iter()
            .any(|selector| selector.matches(caller, destination))
    }
}

/// Whose questions for names are answered: those of the chosen callers, wherever they ask; where all callers are meant, what
/// the recorded name servers are asked.
fn datagrams(selector: &Selector, stub: &Stub) -> Result<Vec<Selector>, FieldError> {
    let servers = stub.places.iter().filter(|place| place.is_dns());
    let servers: Vec<SocketAddr> = servers.filter_map(|place| place.address).collect();
    let everywhere = Selector {
        from: selector.from.clone(),
        ..Selector::default()
    };
    let mut all = Vec::new();
    let knows_names = !servers.is_empty() || !stub.names.is_empty();
    if !selector.from.is_empty() && knows_names {
        all.extend(everywhere.of_dns());
    }
    for address in servers {
        all.push(to(address, &everywhere)?);
    }
    Ok(all)
}

/// The same, to an address and port.
fn to(address: SocketAddr, selector: &Selector) -> Result<Selector, FieldError> {
    let raw = RawEnd {
        cidr: Some(address.ip().to_string()),
        port: Some(RawPort::Number(address.port())),
        ..RawEnd::default()
    };
    Ok(Selector {
        to: EndSelector::try_from(&raw)?,
        everything: false,
        ..selector.clone()
    })
}

/// What the operator chose, or the recorded servers. A service or a host is also what had that name when it was recorded:
/// now that it is down, nobody has it.
fn selectors(selector: &Selector, stub: &Stub) -> Result<Vec<Selector>, FieldError> {
    let to_all = selector.to.is_empty();
    let mut selectors = Vec::new();
    if !to_all {
        selectors.push(selector.clone());
    }
    for place in &stub.places {
        let Some(address) = place.address else { continue };
        if !to_all && !place.is_of(&selector.to, address) {
            continue;
        }
        selectors.push(to(address, selector)?);
    }
    if selectors.is_empty() {
        let message = "no server in the recording has an address: choose the connections with `to`";
        return Err(FieldError::new("to", message));
    }
    Ok(selectors)
}
