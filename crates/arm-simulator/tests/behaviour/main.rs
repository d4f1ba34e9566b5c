//! Every endpoint, refusal and fault of the simulator, by plain HTTP.

mod endpoints;
mod faults;
mod program;
mod sign_in;
mod support;
mod validation;
mod writes;
