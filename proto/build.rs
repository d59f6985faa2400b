//! Compiles the protocol with protox, so that no `protoc` is needed.

use std::path::PathBuf;

const FILES: [&str; 7] = [
    "millstream/v1/errors.proto",
    "millstream/v1/session_service.proto",
    "millstream/v1/stream_service.proto",
    "millstream/v1/consumer_group_service.proto",
    "millstream/v1/batch_service.proto",
    "millstream/admin/v1/cluster_service.proto",
    "millstream/internal/v1/raft.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=millstream");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // Encoded by the compiler itself: prost's types would drop the error traits, which are custom options.
    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_imports(true).include_source_info(false).open_files(FILES)?;
    std::fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;

    tonic_prost_build::configure()
        .bytes(".")
        // In order, so that equal answers are equal bytes.
        .btree_map(".")
        .build_transport(false)
        .emit_rerun_if_changed(false)
        .compile_fds(protox::compile(FILES, ["."])?)?;
    Ok(())
}
