//! `snapshot save`, as etcdctl has it, and `snapshot status` and `restore`, as etcdutl has them: those work on files alone.

mod founding;
mod restore;
mod save;
mod status;

pub(super) use restore::restore;
pub(super) use save::save;
pub(super) use status::status;
