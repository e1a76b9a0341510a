//! app

pub mod readings;
