"""What a version is: names, versions, selectors, releases and lines. Pure values; nothing here touches the world."""
