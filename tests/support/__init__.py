"""What the end-to-end, crash and benchmark programs share: partners, name server, certificates, Martlet itself."""
