//! The database as etcd's image, both ways: what backups, restores and snapshots between members are made of.
//!
//! [`ImageStream`] reads a state of the tables as an image, in bounded memory; [`import_image`] fills a new backend from one;
//! [`restore_backup`] founds a data directory on one. Between two members of our own the rows travel as they are:
//! [`StateStream`], [`Filling`].

mod check;
mod error;
mod export;
mod filling;
mod import;
mod install;
mod restore;
mod state;

pub use check::{ImageFacts, check_image};
pub use error::ImageError;
pub use export::{ImageMeasure, ImageStream};
pub use filling::{Filling, RECEIVED_END, received_file};
pub use import::{Carrier, Import, InTurn, import_image};
pub use install::{image_file, install_image, install_image_by, install_received};
pub use restore::{BACKEND_FILE, FoundingMember, Restore, Restored, backend_path, restore_backup};
pub use state::{ReceivedState, StateReader, StateStream};

#[cfg(test)]
mod state_tests;
#[cfg(test)]
mod tests;
