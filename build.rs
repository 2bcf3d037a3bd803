//! Compiles the C++ bridge between ggml and the CPU kernels against the headers of the linked
//! llama.cpp, so that a change of them is a build error and not a crash.

use std::env;
#[cfg(feature = "cpu-kernels")]
use std::fs;
#[cfg(feature = "cpu-kernels")]
use std::path::{Path, PathBuf};

const BRIDGE: &str = "src/backends/llama/engine/kernels/mul_mat/ggml_bridge.cpp";

fn main() {
    println!("cargo:rerun-if-changed={BRIDGE}");
    let is_x86 = env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64");
    if cfg!(feature = "cpu-kernels") && is_x86 {
        compile();
    }
}

#[cfg(not(feature = "cpu-kernels"))]
fn compile() {}

#[cfg(feature = "cpu-kernels")]
fn compile() {
    let source =
        llama_cpp_source().unwrap_or_else(|missing| panic!("the sources of llama.cpp: {missing}"));
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        // ggml's headers define functions that the bridge does not use.
        .flag_if_supported("-Wno-unused-function")
        .include(source.join("ggml/include"))
        .include(source.join("ggml/src"))
        .include(source.join("ggml/src/ggml-cpu"))
        .file(BRIDGE)
        .compile("wattgate_kernels");
}

/// The source folder of llama.cpp. llama-cpp-sys-2 exports only its build folder, whose `CMake` cache has the rest.
#[cfg(feature = "cpu-kernels")]
fn llama_cpp_source() -> Result<PathBuf, String> {
    let exports = env::var("DEP_LLAMA_GGML_CMAKE_DIR").map_err(|error| error.to_string())?;
    let built = Path::new(&exports)
        .ancestors()
        .nth(2)
        .ok_or("unexpected path of llama.cpp's build folder")?;
    let cache = built.join("build/CMakeCache.txt");
    let text =
        fs::read_to_string(&cache).map_err(|error| format!("{}: {error}", cache.display()))?;
    let home = text.lines().find_map(|line| line.strip_prefix("CMAKE_HOME_DIRECTORY:INTERNAL="));
    home.map(PathBuf::from)
        .ok_or_else(|| format!("{} has no CMAKE_HOME_DIRECTORY", cache.display()))
}
