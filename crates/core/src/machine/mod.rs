//! The state machine of a run: one module for each stretch of the way.

pub mod phase;

pub(crate) mod addon_gateways;
pub(crate) mod aks;
pub(crate) mod analysis;
pub(crate) mod back;
pub(crate) mod batch;
pub(crate) mod complete;
pub(crate) mod failure;
pub(crate) mod fill;
pub(crate) mod gateway_addresses;
pub(crate) mod gateways;
pub(crate) mod git;
pub(crate) mod mesh_config;
pub(crate) mod pass;
pub(crate) mod people;
pub(crate) mod permission;
pub(crate) mod progress;
pub(crate) mod relabel;
pub(crate) mod remains;
pub(crate) mod removed;
pub(crate) mod start;
pub(crate) mod staying;
pub(crate) mod tag_services;
pub(crate) mod tags;
pub(crate) mod wave;
pub(crate) mod workload;
