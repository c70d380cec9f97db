//! The request scope over real sockets: which name a request gets, how it ends, and that its answer
//! is what it would be without the layer. No service is called without a server in front of it.

#[path = "../../examples/tonic_service/text.rs"]
mod text;

mod answers;
mod clients_that_leave;
mod endings;
mod grpc;
mod http2;
mod long_lived;
mod names;
mod stacks;
mod support;
