//! The promises of the library, one module each.

mod books;
mod floors;
mod lane;
mod refusals;
mod saturation;
mod secrets;
mod share;
