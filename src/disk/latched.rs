//! latched
