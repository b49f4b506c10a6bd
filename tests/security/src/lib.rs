//! Attacks on the built program, each of which must fail: see `it/main.rs`. The crate itself is empty.
