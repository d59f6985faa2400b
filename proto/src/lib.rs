//! The wire contract of Millstream: messages, services and descriptors, generated from the `.proto` files beside this
//! crate. No logic lives here.

// The generated code carries the comments of the .proto files, where `buf lint` demands them.
#![allow(missing_docs, unreachable_pub, clippy::all)]

pub mod reasons;

/// The public API.
pub mod v1 {
    tonic::include_proto!("millstream.v1");
}

/// The administrative API.
pub mod admin {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("millstream.admin.v1");
    }
}

/// Node to node.
pub mod internal {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("millstream.internal.v1");
    }
}

/// All files and their imports as an encoded `google.protobuf.FileDescriptorSet`, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
