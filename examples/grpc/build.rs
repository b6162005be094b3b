//! Generates the gRPC service from the description below, so that no `protoc` is needed.

fn main() {
    let watch = tonic_build::manual::Method::builder()
        .name("watch")
        .route_name("Watch")
        .input_type("crate::WatchRequest")
        .output_type("crate::Tick")
        .codec_path("tonic_prost::ProstCodec")
        .server_streaming()
        .build();
    let ticker = tonic_build::manual::Service::builder()
        .package("ticker")
        .name("Ticker")
        .method(watch)
        .build();
    tonic_build::manual::Builder::new().compile(&[ticker]);
    println!("cargo:rerun-if-changed=build.rs");
}
