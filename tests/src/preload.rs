//! C code that runs in a program before its `main`.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

/// A library for `LD_PRELOAD` with a thread that runs this C code.
#[derive(Debug)]
pub struct Preload {
    dir: TempDir,
}

impl Preload {
    /// Compiles it. `code` is the body of the thread's function.
    ///
    /// # Panics
    /// If it does not compile.
    pub fn thread(code: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let source = format!(
            "#include <pthread.h>\n#include <signal.h>\n#include <stdlib.h>\n#include <unistd.h>\n\
             static void handler(int signal) {{ (void)signal; }}\n\
             static void *handler_of(int signal) {{\n\
                 struct sigaction now; sigaction(signal, 0, &now); return (void *)now.sa_handler; }}\n\
             static void *run(void *none) {{ (void)handler; {code}; return none; }}\n\
             __attribute__((constructor)) static void start(void) {{\n\
                 pthread_t thread; sigset_t all, before;\n\
                 unsetenv(\"LD_PRELOAD\"); sigfillset(&all);\n\
                 pthread_sigmask(SIG_BLOCK, &all, &before);\n\
                 pthread_create(&thread, 0, run, 0);\n\
                 pthread_sigmask(SIG_SETMASK, &before, 0); }}\n"
        );
        let file = dir.path().join("preload.c");
        std::fs::write(&file, source).expect("a file");
        let preload = Self { dir };
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-pthread", "-o"])
            .arg(preload.library())
            .arg(&file)
            .output()
            .expect("cc runs, as it links Rust programs");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        preload
    }

    /// The path of the library.
    pub fn library(&self) -> PathBuf {
        self.dir.path().join("preload.so")
    }
}
