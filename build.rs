//! Compiles the C++ edge of the CPU kernels (`src/backends/llama/engine/kernels/mul_mat/ggml_bridge.cpp`) against the headers of the very
//! llama.cpp that is linked, so that a change of them is an error here and not a crash there.

use std::env;
#[cfg(feature = "llama")]
use std::fs;
#[cfg(feature = "llama")]
use std::path::{Path, PathBuf};

const EDGE: &str = "src/backends/llama/engine/kernels/mul_mat/ggml_bridge.cpp";

fn main() {
    println!("cargo:rerun-if-changed={EDGE}");
    let is_x86 = env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64");
    if cfg!(feature = "llama") && is_x86 {
        compile();
    }
}

#[cfg(not(feature = "llama"))]
fn compile() {}

#[cfg(feature = "llama")]
fn compile() {
    let source =
        llama_cpp_source().unwrap_or_else(|missing| panic!("the sources of llama.cpp: {missing}"));
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        // Of functions in ggml's headers that this file has no use for.
        .flag_if_supported("-Wno-unused-function")
        .include(source.join("ggml/include"))
        .include(source.join("ggml/src"))
        .include(source.join("ggml/src/ggml-cpu"))
        .file(EDGE)
        .compile("wattgate_kernels");
}

/// Where llama-cpp-sys-2 built llama.cpp from. It tells only where it built it; the rest is in the build's cache there.
#[cfg(feature = "llama")]
fn llama_cpp_source() -> Result<PathBuf, String> {
    let exports = env::var("DEP_LLAMA_GGML_CMAKE_DIR").map_err(|error| error.to_string())?;
    let built = Path::new(&exports).ancestors().nth(2).ok_or("no folder above lib/cmake")?;
    let cache = built.join("build/CMakeCache.txt");
    let text =
        fs::read_to_string(&cache).map_err(|error| format!("{}: {error}", cache.display()))?;
    let home = text.lines().find_map(|line| line.strip_prefix("CMAKE_HOME_DIRECTORY:INTERNAL="));
    home.map(PathBuf::from).ok_or_else(|| format!("{} names none", cache.display()))
}
