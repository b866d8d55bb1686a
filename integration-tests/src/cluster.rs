//! Clusters of real processes under load and fault.
//!
//! [`Cluster`] starts members, of one program or of several, and does to them what happens to members: kills, pauses, full and slow
//! disks, wires that are cut or slow, members removed and added. [`Load`] has clients that do everything at once and write down what
//! they saw; [`crate::checker`] judges that. [`run`] puts them together for a [`Scenario`], which is a list of steps.

mod chaos;
mod dialers;
mod disk;
mod fleet;
mod leases;
mod load;
mod member;
mod probe;
mod proxy;
mod scenario;
mod translate;
mod watchers;

pub use chaos::{Broken, ChaosOptions, Recorded, Report, chaos, record, run};
pub use disk::Stall;
pub use fleet::{Cluster, Healed, Setup, Site};
pub use load::{Load, LoadOptions};
pub use member::{DiskKind, Member};
pub use probe::Probe;
pub use proxy::{Network, Place, Rules, Way};
pub use scenario::{Program, SCENARIOS, Scenario, Step, Who, Wires};
