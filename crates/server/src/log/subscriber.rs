//! The way in for the macros of `tracing`.

use std::error::Error;
use std::fmt;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span;
use tracing::subscriber::Interest;
use tracing::{Event, Metadata};

use super::caller::Caller;
use super::encode::Fields;
use super::{Level, Logger};

/// Targets that begin so are ours; the others are heard from `warn` on.
const OUR_PREFIX: &str = "quorate";

/// Turns events into lines. Spans are accepted and leave no trace.
pub(crate) struct Subscriber {
    logger: Logger,
}

impl Subscriber {
    pub(crate) fn new(logger: Logger) -> Subscriber {
        Subscriber { logger }
    }
}

impl tracing::Subscriber for Subscriber {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let level = Level::from(*metadata.level());
        let heard = metadata.target().starts_with(OUR_PREFIX) || level >= Level::Warn;
        metadata.is_event() && heard && self.logger.is_enabled(level)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match self.logger.level() {
            Level::Debug => LevelFilter::TRACE,
            Level::Info => LevelFilter::INFO,
            Level::Warn => LevelFilter::WARN,
            Level::Error => LevelFilter::ERROR,
            Level::Panic | Level::Fatal => LevelFilter::OFF,
        })
    }

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let mut visitor = Visitor {
            message: String::new(),
            fields: self.logger.fields(),
        };
        event.record(&mut visitor);
        let target = metadata.target();
        let logger = if target.starts_with(OUR_PREFIX) {
            None
        } else {
            target.split("::").next()
        };
        let caller = Caller::new(metadata.file().unwrap_or(""), metadata.line().unwrap_or(0));
        let level = Level::from(*metadata.level());
        self.logger
            .write_fields(level, logger, caller, &visitor.message, &visitor.fields);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Visitor {
    message: String,
    fields: Fields,
}

impl Visit for Visitor {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.fields.display(field.name(), format_args!("{value:?}"));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.fields.text(field.name(), value);
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.fields.plain(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.fields.plain(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.fields.plain(field.name(), value);
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.fields.plain(field.name(), value);
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.fields.plain(field.name(), value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.fields.float(field.name(), value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.fields.display(field.name(), format_args!("{value}"));
    }
}
