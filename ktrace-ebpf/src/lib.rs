//! Placeholder so that the crate can be a build dependency of the agent.
#![no_std]
