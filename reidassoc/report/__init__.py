"""Reports: one page that shows what runs did, how they compare, and the pictures behind the figures."""
