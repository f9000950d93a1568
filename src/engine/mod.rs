//! The scheduler as plain values. Nothing in this folder waits, reads a clock or touches a network: every function is
//! told the time.
