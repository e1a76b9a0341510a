//! impression
