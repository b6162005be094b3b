//! A listening socket that is passed to the gateway: sd_listen_fds(3), by systemd-socket-activate.
