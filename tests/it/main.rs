//! The promises of the library, one module each.

mod books;
