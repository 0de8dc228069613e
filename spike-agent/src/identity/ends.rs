//! All that selectors can ask of a process at an end of a call.

use std::sync::Arc;

use spike_common::task::Task;

use super::{NetworkNamespaces, Processes, Services, Users};
use crate::model::Caller;

/// Tells who is at an end.
#[derive(Debug)]
pub struct Ends {
    processes: Arc<Processes>,
    services: Arc<Services>,
    users: Users,
    namespaces: NetworkNamespaces,
}

impl Ends {
    /// Puts together what each knows.
    pub fn new(processes: Arc<Processes>, services: Arc<Services>, users: Users) -> Self {
        Self {
            processes,
            services,
            users,
            namespaces: NetworkNamespaces::new(),
        }
    }

    /// The users of this host.
    pub fn users(&self) -> &Users {
        &self.users
    }

    /// The network namespaces of this host.
    pub fn namespaces(&self) -> &NetworkNamespaces {
        &self.namespaces
    }

    /// The process that the kernel saw; it may have ended since.
    pub fn process(&self, task: &Task) -> Caller {
        let service = self.services.of(task);
        let known = self.processes.caller(task.tgid, task.cgroup, task.name());
        let pod = service.pod.as_ref().and_then(|pod| pod.container.clone());
        let containers = [service.container.clone(), service.container_id.clone(), pod];
        Caller {
            invoked: service.invoked.clone(),
            uid: Some(task.uid),
            user: self.users.name(task.uid),
            service: Some(service.name.clone()),
            containers: containers.into_iter().flatten().collect(),
            unit: service.unit.clone(),
            netns: (task.tgid != 0).then(|| self.namespaces.of(task.tgid)).flatten(),
            ..known
        }
    }
}
