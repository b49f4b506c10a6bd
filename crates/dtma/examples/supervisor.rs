//! The supervisor as a program of its own, for this crate's tests; in a shipped build it is `toolyard supervise`.

fn main() -> std::process::ExitCode {
    toolyard_dtma::supervise::main()
}
