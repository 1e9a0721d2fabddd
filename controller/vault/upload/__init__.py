"""Taking backups in: sessions, packs and the commit."""
