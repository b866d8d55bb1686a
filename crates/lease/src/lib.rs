//! The lessor: grant, renew, expire and checkpoint leases.
//!
//! A lease is a time to live with keys attached to it; when it ends, its keys are deleted. [`Lessor`] keeps the leases of
//! one member. It is deterministic: it has no threads and no clock, time is an argument. Leases are restored from and
//! stored in the table `lease` of a [`Backend`](quorate_backend::Backend), through the transaction of the log entry that
//! changes them. Everything about time is held in memory only, on the leader, in a timer wheel: granting, renewing and
//! ending a lease take constant time however many there are.
//!
//! ```
//! use std::sync::Arc;
//! use quorate_backend::Backend;
//! use quorate_lease::{Lessor, Options};
//! use quorate_proto::LeaseId;
//!
//! let disk = Arc::new(quorate_disk::SimDisk::new(1));
//! let backend = Backend::open(disk, "db".as_ref(), Default::default()).unwrap();
//! let mut lessor = Lessor::restore(&backend, Options::default()).unwrap();
//! lessor.promote(0, 1_000);
//!
//! let mut txn = backend.begin_apply(1, 1);
//! let granted = lessor.grant(&mut txn, LeaseId(7), 10, 0).unwrap();
//! lessor.attach("key".into(), granted.id);
//! txn.commit(0);
//!
//! assert_eq!(lessor.renew(granted.id, 9_000).unwrap(), 10);
//! assert!(lessor.expired(18_999, 100).is_empty());
//! assert_eq!(lessor.expired(19_000, 100), [LeaseId(7)]);
//!
//! // The revocation goes through the log; when it is applied, the keys are deleted in the same transaction.
//! let mut txn = backend.begin_apply(2, 1);
//! assert_eq!(lessor.keys(LeaseId(7)).unwrap(), ["key"]);
//! lessor.revoke(&mut txn, LeaseId(7)).unwrap();
//! txn.commit(0);
//! ```

mod attachments;
mod error;
mod lessor;
mod record;
mod slab;
mod spread;
mod wheel;

pub use error::Error;
pub use lessor::{
    CHECKPOINT_INTERVAL_MS, Granted, Lessor, Options, REMAINING_FOREVER_S, REVOKE_RETRY_MS_DEFAULT,
    REVOKES_PER_SECOND_DEFAULT, TIMER_STEPS_MAX, TTL_MAX_S, TimeToLive,
};
