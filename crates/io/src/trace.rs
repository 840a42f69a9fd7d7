//! What whoever traces the engine is told: spans and events of the crate `tracing`, with the feature of that name, and
//! without it nothing, at no cost.
//!
//! The macros stand here because all crates use this one: the feature is a matter of one crate, and the calls need no
//! `cfg`. What is told is never read back.
//!
//! # Not here
//! Counts and times, which are kept without any feature; warnings, which go through `log`.

/// Enters a span, which lasts as long as what this gives: `trace_span!(DEBUG, "name", field = value)`. Fields are
/// evaluated only if somebody listens.
#[cfg(feature = "tracing")]
#[macro_export]
macro_rules! trace_span {
    ($level:ident, $($what:tt)+) => {
        $crate::tracing::span!($crate::tracing::Level::$level, $($what)+).entered()
    };
}

/// Nothing: the feature `tracing` is off.
#[cfg(not(feature = "tracing"))]
#[macro_export]
macro_rules! trace_span {
    ($level:ident, $($what:tt)+) => {
        $crate::NotTraced
    };
}

/// Tells an event: `trace_event!(WARN, field = value, "what happened")`. Fields are evaluated only if somebody listens.
#[cfg(feature = "tracing")]
#[macro_export]
macro_rules! trace_event {
    ($level:ident, $($what:tt)+) => {
        $crate::tracing::event!($crate::tracing::Level::$level, $($what)+)
    };
}

/// Nothing: the feature `tracing` is off.
#[cfg(not(feature = "tracing"))]
#[macro_export]
macro_rules! trace_event {
    ($level:ident, $($what:tt)+) => {
        ()
    };
}

/// Stands for a span where nothing is traced.
#[cfg(not(feature = "tracing"))]
#[doc(hidden)]
#[derive(Debug)]
pub struct NotTraced;
