//! The database as etcd's image, both ways: what backups, restores and snapshots between members are made of.
//!
//! [`ImageStream`] reads a state of the tables as an image, in bounded memory; [`import_image`] fills a new backend from one;
//! [`restore_backup`] founds a data directory on one.

mod check;
mod error;
mod export;
mod import;
mod install;
mod restore;

pub use check::{ImageFacts, check_image};
pub use error::ImageError;
pub use export::{ImageMeasure, ImageStream};
pub use import::{Carrier, Import, InTurn, import_image};
pub use install::{image_file, install_image, install_image_by};
pub use restore::{BACKEND_FILE, FoundingMember, Restore, Restored, backend_path, restore_backup};

#[cfg(test)]
mod tests;
