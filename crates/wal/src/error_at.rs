//! Errors of the system with what was tried.

use crate::Error;
use std::io;
use std::path::Path;

/// Returns what turns an error of the system into one that says what was tried on which file.
pub(crate) fn at<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Error + 'a {
    move |source| Error::Io {
        action,
        path: path.to_owned(),
        source,
    }
}
