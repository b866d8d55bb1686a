//! Configuration as etcd takes it: flags, `ETCD_*` variables or a YAML file, and one typed [`Config`] from them.
//!
//! One table of flags drives all sources and the help text; each row says what the flag does in this build. A value
//! whose effect is not built is refused with a message that names the flag; a value that is taken without an effect is
//! logged. Values are checked here and nowhere else.
//!
//! ```
//! use quorate_server::config::{Loaded, load};
//!
//! let args = ["quorate", "--name=a", "--snapshot-count", "0x10"].map(Into::into);
//! let Loaded::Start { config, .. } = load(args, []) else { panic!("these flags are fine") };
//! assert_eq!((config.name.as_str(), config.snapshot_count), ("a", 16));
//! assert_eq!(config.data_dir.to_str(), Some("a.etcd"));
//! ```

mod bootstrap;
mod compaction;
mod effect;
mod error;
mod feature_gates;
mod flag;
mod flag_set;
mod go;
mod help;
mod links;
mod load;
mod log_options;
mod member_config;
mod start_line;
mod table;
mod url;
mod validate;
mod yaml;

pub use bootstrap::Bootstrap;
pub(crate) use bootstrap::same_addresses;
pub use compaction::AutoCompaction;
pub use error::Error;
pub use feature_gates::{FeatureGates, Gate};
pub use go::GoDuration;
pub use links::LinkOptions;
pub use load::{Exit, Loaded, load};
pub use member_config::{AuthToken, Config, Keepalive, Metrics};
pub use url::{Scheme, Url};

#[cfg(test)]
mod tests;
