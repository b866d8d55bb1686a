//! Watchers: who is told of which changes, and when.
//!
//! ```text
//! store --append--> EventLog --read--> WatchHub (one a thread) --take--> streams
//!                   backend --history--^
//! ```
//!
//! A hub keeps one cursor, `live`, for all its **synced** watchers: they have seen every event up to it. Synced watchers
//! are members of groups by what they watch, so that an event is matched once for each range watched and encoded once,
//! however many watch it. A watcher that needs older events is **lagging** and has a cursor of its own; one whose stream
//! is full is **blocked** until the stream drains, and then lagging. Lagging watchers read the log, or the backend
//! behind it, in bounded stretches that are shared by all whose cursors lie in them, until they reach `live`.
//!
//! Everything a client is told follows from these cursors: an event is sent when a cursor passes it, so none is lost,
//! sent twice or out of order, and progress is the cursor itself, so it cannot overtake an event.

mod catch_up;
mod encode;
mod group;
mod history;
mod hub;
mod interval_tree;
mod live;
mod message;
mod options;
mod place;
mod progress;
mod range_index;
mod slab;
mod stream;
mod watcher;

pub use encode::EventBatch;
pub use history::History;
pub use hub::{WatchHub, WatchStats};
pub use message::{StreamId, WatchCreate, WatchResponse};
pub use options::WatchOptions;
