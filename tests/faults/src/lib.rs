//! Faults that the built program must get over: see `it/main.rs`. The crate itself is empty.
