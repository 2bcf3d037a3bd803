# CMake settings for llama.cpp, included after its project() by way of .cargo/config.toml. They more than halve its build.
#
# `common` is the library of llama.cpp's own programs (arguments, chat templates, JSON, an HTTP client): 54 of 128 files,
# among them the slowest to compile. llama-cpp-sys-2 switches it on by default, Wattgate calls none of it, and the linker
# drops what is not called.
set(LLAMA_BUILD_COMMON OFF CACHE BOOL "" FORCE)
# Line tables for Rust (Cargo.toml) would otherwise mean `-O2 -g` here: twice the size, and slower to compile and to run.
set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
# The portable variant of the CPU backend runs on any x86-64. Wattgate's build script adds those for newer CPUs, with
# gcc and Linux only: elsewhere llama.cpp keeps its default, AVX2.
if (CMAKE_SYSTEM_NAME STREQUAL "Linux" AND CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|amd64|AMD64)$")
    foreach (instructions SSE42 AVX AVX2 BMI2 F16C FMA)
        set(GGML_${instructions} OFF CACHE BOOL "" FORCE)
    endforeach ()
endif ()
