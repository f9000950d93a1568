//! The one place where the program reads the time of day.

use std::time::SystemTime;

/// The time of day, from which dates in headers count and which the doctor compares with the server's.
#[expect(clippy::disallowed_methods, reason = "the one place where the program reads it")]
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}
