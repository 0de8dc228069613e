//! The connections that are open in the proxy, so that a fault that wants the existing ones can have them come back.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

use crate::{
    fault::pipeline::Plan,
    model::{Caller, Destination, Selector},
};

/// The open connections.
#[derive(Debug, Default)]
pub(super) struct Open {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    connections: HashMap<u64, Connection>,
    last: u64,
}

#[derive(Debug)]
struct Connection {
    caller: Arc<Caller>,
    destination: Destination,
    /// The faults that have it.
    faults: Vec<u64>,
    close: CancellationToken,
}

impl Open {
    /// Keeps a connection for as long as the entry lives.
    pub(super) fn enter(&self, caller: Arc<Caller>, destination: Destination, plan: &Plan) -> Entry<'_> {
        let close = CancellationToken::new();
        let mut table = self.lock();
        table.last += 1;
        let id = table.last;
        let connection = Connection {
            caller,
            destination,
            faults: plan.taken.iter().map(|taken| taken.fault_id()).collect(),
            close: close.clone(),
        };
        table.connections.insert(id, connection);
        Entry {
            open: self,
            id,
            close,
        }
    }

    /// Closes those that `selector` chooses and that the fault `fault_id` does not have; tells how many.
    pub(super) fn close(&self, selector: &Selector, fault_id: u64) -> u64 {
        let table = self.lock();
        let meant = table.connections.values().filter(|connection| {
            !connection.faults.contains(&fault_id)
                && selector.matches(&connection.caller, &connection.destination)
        });
        meant.map(|connection| connection.close.cancel()).count() as u64
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An open connection.
pub(super) struct Entry<'a> {
    open: &'a Open,
    id: u64,
    close: CancellationToken,
}

impl Entry<'_> {
    /// Waits until the connection is to be closed.
    pub(super) async fn is_closed(&self) {
        self.close.cancelled().await;
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.open.lock().connections.remove(&self.id);
    }
}
