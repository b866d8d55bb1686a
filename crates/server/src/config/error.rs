//! Why a configuration is not one to start with.

use std::fmt;

/// A configuration that cannot be started. The member has touched nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The command line is not of the flags' grammar; the usage is printed. Exit code 2.
    Usage(String),
    /// A value breaks a rule, or two values contradict each other. Exit code 1.
    Invalid(String),
    /// A flag is set to a value whose effect is not built yet. Exit code 1.
    NotBuilt {
        /// Names of the flag or feature gate.
        flag: String,
        /// What it was set to.
        value: String,
        /// What is built of it, if anything.
        built: &'static str,
    },
}

impl Error {
    /// Returns the exit code of a process that ends for this.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage(_) => 2,
            Error::Invalid(_) | Error::NotBuilt { .. } => 1,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Usage(message) | Error::Invalid(message) => f.write_str(message),
            Error::NotBuilt { flag, value, built } => {
                write!(f, "{flag} is set to {value:?}, which is not built yet")?;
                if !built.is_empty() {
                    write!(f, " (built: {built})")?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for Error {}
