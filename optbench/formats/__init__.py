"""The files that both wings share: runs, job lists, studies."""
