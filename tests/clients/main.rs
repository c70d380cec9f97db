//! Real clients on real sockets, with a real pool behind the service: who leaves, who reads slowly, who
//! is failed by the pool, and what outlives its request.

#[path = "../support/mod.rs"]
mod support;

#[path = "../exhaustion/bench.rs"]
#[allow(dead_code)]
mod bench;

#[path = "../../examples/tonic_service/text.rs"]
mod text;

mod cuts;
mod exhausted;
mod exports;
mod grpc;
mod http2;
mod load;
mod outlived;
mod shutdown;
mod uploads;
mod web;
