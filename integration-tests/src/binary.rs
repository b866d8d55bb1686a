//! Which server to start.

use std::env;
use std::path::{Path, PathBuf};

use crate::failure::{Failure, Outcome};

/// The executable of a server.
#[derive(Debug, Clone)]
pub struct Binary {
    path: PathBuf,
}

impl Binary {
    /// The server under test: `QUORATE_BIN`, else `quorate` in the directory of this executable or the one above.
    ///
    /// # Errors
    /// There is no such file.
    pub fn quorate() -> Outcome<Binary> {
        if let Some(path) = env::var_os("QUORATE_BIN") {
            return Binary::at(Path::new(&path));
        }
        let own = env::current_exe()?;
        let mut beside = own
            .ancestors()
            .skip(1)
            .take(2)
            .map(|dir| dir.join("quorate"));
        let found = beside.find(|path| path.is_file());
        let path = found.ok_or_else(|| {
            Failure::new("the server is not built: run `cargo build --bin quorate` first, or set QUORATE_BIN")
        })?;
        Ok(Binary { path })
    }

    /// A real etcd to check the tests with, when `QUORATE_REFERENCE_ETCD` names one.
    ///
    /// # Errors
    /// What it names is not a file.
    pub fn reference() -> Outcome<Option<Binary>> {
        let path = env::var_os("QUORATE_REFERENCE_ETCD");
        path.map(|path| Binary::at(Path::new(&path))).transpose()
    }

    /// The executable at `path`.
    ///
    /// # Errors
    /// There is no such file.
    pub fn at(path: &Path) -> Outcome<Binary> {
        if !path.is_file() {
            return Err(Failure::new(format!("{} is not a file", path.display())));
        }
        Ok(Binary {
            path: path.to_path_buf(),
        })
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}
