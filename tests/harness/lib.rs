//! The vocabulary of the end-to-end tests: real brokers, clients and collectors, the agent, and
//! what to hold its spans against. Everything listens on loopback, writes into the test's own
//! directory and goes when its value is dropped.

pub mod agent;
pub mod broker;
pub mod cache;
pub mod cgroups;
pub mod chain;
pub mod check;
pub mod clients;
pub mod cluster;
pub mod collector;
pub mod compare;
pub mod crowd;
pub mod hostile;
pub mod hosts;
pub mod jaeger;
pub mod kernel_objects;
pub mod lossy;
pub mod matrix;
pub mod memory;
pub mod memory_cgroup;
pub mod namespace;
pub mod need;
pub mod other_program;
pub mod ports;
pub mod process;
pub mod refused;
pub mod scratch;
pub mod servers;
pub mod spans;
pub mod tcpdump;
pub mod tls;
pub mod tools;
pub mod traffic;
pub mod truth;
