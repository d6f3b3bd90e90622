"""One photo to several views: what it does not show is completed by a learned head."""
