//! Tells who a process is: the kernel knows numbers, operators know paths.

mod cgroups;
mod processes;

pub use cgroups::Cgroups;
pub use processes::Processes;
