//! The messages and services of `proto/forebay/v1`, as the build script made them.
//!
//! Nothing is written by hand here; what a field means stands in the protos.

/// Package `forebay.v1`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    reason = "generated: its text is not ours, and its docs are the protos'"
)]
pub mod v1 {
    tonic::include_proto!("forebay.v1");
}

/// All protos of the project with their comments, as an encoded `google.protobuf.FileDescriptorSet`: what reflection serves.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("forebay");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptor_set_holds_what_was_generated() {
        let set = String::from_utf8_lossy(FILE_DESCRIPTOR_SET);
        assert!(set.contains("forebay/v1/cursors.proto"));
        assert!(set.contains("How far one queue is behind."), "with the comments");
        assert_eq!(v1::cursors_server::SERVICE_NAME, "forebay.v1.Cursors");
    }
}
