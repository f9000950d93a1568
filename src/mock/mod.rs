//! A provider to test against.
