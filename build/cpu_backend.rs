//! ggml's CPU backend, compiled for several CPUs and linked side by side.
//!
//! llama.cpp's own way to carry variants is a folder of shared libraries. Wattgate stays one
//! binary: each variant becomes one object file in which all symbols but the entry points are
//! local, and these get the variant's name. Templates of the C++ library that were compiled for
//! AVX-512 can thus not replace those that run everywhere.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const BRIDGE: &str = "src/backends/llama/engine/kernels/mul_mat/ggml_bridge.cpp";

/// ggml's function that returns the backend, and the bridge's that registers kernels with it.
const ENTRY_POINTS: [&str; 2] = ["ggml_backend_cpu_reg", "wattgate_register_kernels"];

/// Names and instruction sets as in llama.cpp's `ggml/src/CMakeLists.txt`. The portable variant is
/// the one that llama-cpp-sys-2 builds (`scripts/llama.cmake`).
const VARIANTS: [(&str, &[&str]); 5] = [
    ("haswell", &[AVX2]),
    ("alderlake", &[AVX2, "-mavxvnni"]),
    ("skylakex", &[AVX2, AVX512]),
    ("cascadelake", &[AVX2, AVX512, "-mavx512vnni"]),
    ("cooperlake", &[AVX2, AVX512, "-mavx512vnni -mavx512bf16"]),
];
const AVX2: &str = "-msse4.2 -mf16c -mfma -mbmi2 -mavx -mavx2";
const AVX512: &str = "-mavx512f -mavx512cd -mavx512vl -mavx512dq -mavx512bw";

/// Sources below `ggml/src/ggml-cpu`, as in its `CMakeLists.txt` for x86.
const C_SOURCES: [&str; 3] = ["ggml-cpu.c", "quants.c", "arch/x86/quants.c"];
const CPP_SOURCES: [&str; 14] = [
    "ggml-cpu.cpp",
    "repack.cpp",
    "arch/x86/repack.cpp",
    "hbm.cpp",
    "traits.cpp",
    "amx/amx.cpp",
    "amx/mmq.cpp",
    "tiled/tiled.cpp",
    "tiled/tiled-kernel.cpp",
    "binary-ops.cpp",
    "unary-ops.cpp",
    "vec.cpp",
    "ops.cpp",
    "llamafile/sgemm.cpp",
];
const DEFINITIONS: [(&str, Option<&str>); 6] = [
    ("_GNU_SOURCE", None),
    ("_XOPEN_SOURCE", Some("600")),
    ("GGML_SCHED_MAX_COPIES", Some("4")),
    ("GGML_USE_CPU_REPACK", None),
    ("GGML_USE_LLAMAFILE", None),
    ("GGML_USE_OPENMP", None),
];

pub(crate) fn build() {
    println!("cargo:rerun-if-changed=build/cpu_backend.rs");
    println!("cargo:rerun-if-changed={BRIDGE}");
    let target = |part| env::var(format!("CARGO_CFG_TARGET_{part}")).unwrap_or_default();
    if target("ARCH") != "x86_64" {
        return;
    }
    let wrapper = env::var("RUSTC_WORKSPACE_WRAPPER").unwrap_or_default();
    let lints = wrapper.ends_with("clippy-driver");
    let fuzzes = !wrapper.is_empty() && !lints;
    // Fuzz targets evaluate no model.
    let has_variants = target("OS") == "linux" && target("ENV") == "gnu" && !fuzzes;
    if has_variants {
        println!("cargo:rustc-cfg=cpu_variants");
    }
    // Lints link nothing.
    if lints || !has_variants && !cfg!(feature = "cpu-kernels") {
        return;
    }
    let source = llama_cpp_source();
    let ggml =
        source.unwrap_or_else(|missing| panic!("the sources of llama.cpp: {missing}")).join("ggml");
    if has_variants {
        let mut archive = cc::Build::new();
        for (name, flags) in VARIANTS {
            archive.object(variant(&ggml, name, &flags.join(" ")));
        }
        archive.compile("wattgate_cpu_variants");
    } else {
        compiler(&ggml, "c++17").file(BRIDGE).compile("wattgate_kernels");
    }
}

/// The backend, and the bridge, for one variant in one object file.
fn variant(ggml: &Path, name: &str, flags: &str) -> PathBuf {
    let folder = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join(name);
    fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut parts = vec![backend(ggml, &folder, flags)];
    if cfg!(feature = "cpu-kernels") {
        let mut bridge = compiler(ggml, "gnu++17");
        parts.extend(bridge.out_dir(&folder).file(BRIDGE).compile_intermediates());
    }
    let (merged, renamed) = (folder.join("merged.o"), folder.join(format!("ggml-cpu-{name}.o")));
    merge(&parts, &merged);
    let objcopy = env::var_os("OBJCOPY").unwrap_or_else(|| "objcopy".into());
    run(Command::new(&objcopy)
        .args(ENTRY_POINTS.map(|entry| format!("--keep-global-symbol={entry}")))
        .arg(&merged));
    run(Command::new(&objcopy)
        .args(ENTRY_POINTS.map(|entry| format!("--redefine-sym={entry}={entry}_{name}")))
        .args([&merged, &renamed]));
    renamed
}

/// The backend as one object file. Compiling it takes a minute of CPU time, so it is kept for the
/// next run of this script.
fn backend(ggml: &Path, folder: &Path, flags: &str) -> PathBuf {
    let (object, inputs) = (folder.join("backend.o"), folder.join("backend.inputs"));
    let source = ggml.display();
    let made_of = format!("{source} {flags} {C_SOURCES:?} {CPP_SOURCES:?} {DEFINITIONS:?}");
    if object.exists() && fs::read_to_string(&inputs).is_ok_and(|last| last == made_of) {
        return object;
    }
    let mut objects = Vec::new();
    for (standard, sources) in [("gnu11", &C_SOURCES[..]), ("gnu++17", &CPP_SOURCES)] {
        let mut build = compiler(ggml, standard);
        build.out_dir(folder).opt_level(3).define("NDEBUG", None).flag("-fopenmp");
        for (key, value) in DEFINITIONS {
            build.define(key, value);
        }
        for flag in flags.split(' ') {
            build.flag(flag);
        }
        build.files(sources.iter().map(|source| ggml.join("src/ggml-cpu").join(source)));
        objects.extend(build.compile_intermediates());
    }
    merge(&objects, &object);
    fs::write(&inputs, made_of).unwrap_or_else(|error| panic!("{}: {error}", inputs.display()));
    object
}

/// Links object files into one. Without their groups, templates stay in it instead of being merged
/// with others'.
fn merge(objects: &[PathBuf], into: &Path) {
    run(cc::Build::new()
        .get_compiler()
        .to_command()
        .args(["-r", "-nostdlib", "-Wl,--force-group-allocation", "-o"])
        .arg(into)
        .args(objects));
}

fn compiler(ggml: &Path, standard: &str) -> cc::Build {
    let mut build = cc::Build::new();
    build
        .cpp(standard.contains("++"))
        .std(standard)
        .debug(false)
        .warnings(false)
        .flag_if_supported("-w")
        // Unique symbols would stay global.
        .flag_if_supported("-fno-gnu-unique")
        .include(ggml.join("include"))
        .include(ggml.join("src"))
        .include(ggml.join("src/ggml-cpu"));
    build
}

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}

/// The source folder of llama.cpp. llama-cpp-sys-2 exports only its build folder, whose `CMake`
/// cache has the rest.
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
